"""What the cluster runs for `cifar-ray submit tune`: `python jobs/tune.py SPEC`."""

import sys

try:
    from cifar_ray.cli.job import run
except ModuleNotFoundError as error:
    sys.exit(
        f"{error}: cifar-ray is not installed for {sys.executable}, which this cluster runs jobs "
        "with. Install it on every node, or submit with --ship-code."
    )

sys.exit(run("tune", sys.argv[1]))
