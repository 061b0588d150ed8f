"""`fastddpm demo`: a page in the browser for one's own model. Gradio, an optional extra, is imported here only."""
