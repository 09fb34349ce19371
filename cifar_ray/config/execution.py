"""How a run computes: asked for by the user, resolved once, kept in `run.json`."""

from typing import Literal

from pydantic import Field

from cifar_ray.config.frozen import FrozenConfig

BackendName = Literal["openvino", "torch"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
Device = Literal["cpu", "cuda"]
DecoderName = Literal["pillow", "simplejpeg"]


class ExecutionRequest(FrozenConfig):
    """What the user asks for; `auto` and None leave the choice to the machine and the model."""

    device: Device | Literal["auto"] = "auto"
    precision: Precision | Literal["auto"] = "auto"
    backend: BackendName | Literal["auto"] = "auto"
    batch_size: int | None = Field(None, gt=0)
    threads: int = Field(1, gt=0)
    """Cores that the model of one worker uses."""
    decoder: DecoderName | Literal["auto"] = "auto"
    decoder_scaling: bool = True
    """Decode large JPEG at a fraction of their size."""

    def explicit(self) -> dict[str, object]:
        """Return what the user decided, under the names of `Execution`."""
        fields = self.model_dump(exclude_unset=True)
        return {name: value for name, value in fields.items() if value not in ("auto", None)}


REFERENCE = ExecutionRequest(precision="float32", decoder="pillow", decoder_scaling=False)
"""What models are compared in, and what a faster way is compared with."""


class Execution(FrozenConfig):
    """All that bytes in `predictions/` depend on besides listing and bundle."""

    backend: BackendName
    precision: Precision
    device: Device
    batch_size: int = Field(gt=0)
    threads: int = Field(gt=0)
    decoder: DecoderName
    decoder_scaling: bool
    versions: dict[str, str]
    """Of the libraries that compute."""
    instruction_set: str
    """Of the CPU, or the name of the GPU."""
