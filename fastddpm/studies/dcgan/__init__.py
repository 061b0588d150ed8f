"""`fastddpm dcgan`: the opponent that the paper compares with."""
