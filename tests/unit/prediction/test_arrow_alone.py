import subprocess
import sys

WITHOUT = """
import sys
from cifar_ray.prediction.arrow_alone import keep_pandas_out
import pyarrow as pa
keep_pandas_out()
table = pa.table({"a": [1, 2]})
assert "pandas" not in sys.modules
"""


def test_arrow_converts_without_importing_pandas() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True)


def test_arrow_gives_a_data_frame_to_who_asks_for_one() -> None:
    asked = WITHOUT + "assert list(table.to_pandas()['a']) == [1, 2]"
    subprocess.run([sys.executable, "-c", asked], check=True)
