"""`python -m cifar_ray`: the command line where the console script is not on PATH."""

from cifar_ray.cli.main import run

if __name__ == "__main__":
    run()
