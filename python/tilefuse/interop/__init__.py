"""Models and arrays of other frameworks, each imported only when its module is asked for."""
