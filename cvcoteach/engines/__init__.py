from cvcoteach._working_folder import load_torch_elsewhere

load_torch_elsewhere()  # in workers of Ray, too
