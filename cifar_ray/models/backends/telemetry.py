"""What OpenVINO and NNCF tell their maker of each use: nothing, in processes of ours."""

import sys


def keep_quiet() -> None:
    """Make the package absent that would tell; called before either is imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
