def read_arrays(file, size):
    raise ValueError("todo")
