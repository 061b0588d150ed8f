"""`fastddpm reproduce`: the paper's figures drawn and its claims measured."""
