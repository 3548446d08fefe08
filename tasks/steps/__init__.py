"""The steps of the flows with their input and output, a module each: the rules they apply are in the packages below."""
