"""`chainrule bench`: the compiled step beside its peers and its floor, in one run."""
