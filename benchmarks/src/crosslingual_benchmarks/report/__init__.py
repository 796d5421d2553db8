"""`crosslingual-bench report`: any set of result files as one page, with tables and plots."""
