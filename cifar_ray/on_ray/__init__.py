from cifar_ray.errors import InputError

try:
    import ray  # noqa: F401
except ModuleNotFoundError as error:
    raise InputError(
        "The package ray is not installed here. Install it with\n"
        "  pip install 'ray[data,default,serve,train,tune]==2.60.*'\n"
        "or do without: `predict` and `train` take --local."
    ) from error
