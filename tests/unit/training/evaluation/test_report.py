"""The evaluation's page and plots: all that it promises, for few classes and many, escaped."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cifar_ray.images.labels import CIFAR10
from cifar_ray.runs import EvaluationRun
from cifar_ray.training.evaluation.figures import model_plots
from cifar_ray.training.evaluation.plots import LIGHT, to_png
from cifar_ray.training.evaluation.report import Provenance, write_report
from tests.unit.training.evaluated import make_evaluation

HOSTILE = '<img src=x onerror="hacked=1">'
PROVENANCE = Provenance(f"Chosen {HOSTILE}", (f"Warned {HOSTILE}",))
PLOTS = {"confusion_matrix", "roc", "reliability", "loss", "accuracy"}
GRIDS = {"predictions", "mistakes", "gradcam"}


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> EvaluationRun:
    """A page of one model whose names are all hostile."""
    folder = tmp_path_factory.mktemp("one")
    labels = (*CIFAR10[:-2], HOSTILE, "_$x^2$")
    images = [f"{HOSTILE}{i}\x1b[31m" for i in range(60)]
    run = EvaluationRun(folder / "out")
    write_report(run, [make_evaluation(folder, labels, HOSTILE, images)], PROVENANCE)
    return run


def test_the_page_needs_no_other_file_and_no_script(one: EvaluationRun) -> None:
    page = one.report.read_text()
    assert "default-src 'none'; img-src data:" in page
    assert "<script" not in page
    sources = re.findall(r'(?:src|srcset|href)="([^"]*)"', page)
    assert len(sources) > 60
    assert all(source.startswith("data:image/") for source in sources)


def test_names_of_others_are_text_and_nothing_else(one: EvaluationRun) -> None:
    page = one.report.read_text()
    assert HOSTILE not in page
    assert "\x1b" not in page
    assert page.count("&lt;img src=x onerror=&#34;hacked=1&#34;&gt;") > 60


def test_every_plot_lies_as_png_beside_the_page(one: EvaluationRun) -> None:
    assert {path.stem for path in one.plots.iterdir()} == PLOTS | GRIDS
    for path in one.plots.iterdir():
        with Image.open(path) as image:
            assert min(image.size) >= 500


def test_every_picture_has_a_text_in_its_place(one: EvaluationRun) -> None:
    pictures = re.findall(r"<img [^>]*>", one.report.read_text())
    assert pictures
    assert all(re.search(r'alt="[^"]{5,}"', picture) for picture in pictures)


def test_the_page_says_how_far_its_numbers_can_be_trusted(one: EvaluationRun) -> None:
    page = one.report.read_text()
    assert re.search(r"95 % interval \d\d\.\d % to \d\d\.\d %", page)
    assert "60 test images of drawn" in page
    assert "60 images are few" in page
    assert "Chosen &lt;img" in page
    assert "Warned &lt;img" in page
    assert page.count("Evidence for") == 20


def test_curves_are_of_training_and_validation_images_by_epoch(tmp_path: Path) -> None:
    evaluation = make_evaluation(tmp_path, CIFAR10)
    loss, accuracy = model_plots(evaluation)[-2:]
    assert "training images: 2.000 to 0.500; validation images: 2.200 to 0.550" in loss.alt
    assert "training images: 0.0% to 75.0%; validation images: 0.0% to 60.0%" in accuracy.alt
    # Of a population of trials, whose last epochs mixed images.
    rows = [dict(row) for row in evaluation.history]
    del rows[-1]["train_accuracy"]
    accuracy = model_plots(replace(evaluation, history=rows))[-1]
    assert "training images: 0.0% to 50.0%; validation images: 0.0% to 60.0%" in accuracy.alt
    assert to_png(accuracy.draw, LIGHT)


def test_accuracy_over_views_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    run = EvaluationRun(tmp_path / "out")
    evaluation = make_evaluation(tmp_path, CIFAR10)
    write_report(run, [evaluation], PROVENANCE)
    assert "Over views" not in run.report.read_text()
    evaluation.metrics["accuracy_with_views"] = 0.98765
    write_report(run, [evaluation], PROVENANCE)
    assert "98.77 % accuracy with test-time augmentation" in run.report.read_text()


def test_many_classes_are_shown_by_their_extremes_and_in_a_folded_table(tmp_path: Path) -> None:
    labels = tuple(f"class {i:03}" for i in range(120))
    run = EvaluationRun(tmp_path / "out")
    images = [f"image {i}" for i in range(240)]
    write_report(
        run, [make_evaluation(tmp_path, labels, image_names=images)], Provenance("Nothing.")
    )
    page = run.report.read_text()
    assert "Lowest F1" in page
    assert "<summary>All 120 classes</summary>" in page
    assert page.count('<th scope="row">class 119</th>') == 1  # it has no images: in the whole table
    assert "110 of the 120 classes have no images here" in page
    assert "Most frequent confusions" in page


def test_several_models_stand_side_by_side(tmp_path: Path) -> None:
    run = EvaluationRun(tmp_path / "out")
    (tmp_path / "out" / "plots").mkdir(parents=True)
    (tmp_path / "out" / "plots" / "stale.png").touch()
    models = [make_evaluation(tmp_path, CIFAR10, f"model {seed}", seed=seed) for seed in (0, 1)]
    write_report(run, models, Provenance("Nothing."))
    page = run.report.read_text()
    assert "2 models on the same 60 images" in page
    assert "McNemar" in page
    first = models[0].bundle.id
    names = {path.stem for path in run.plots.iterdir()}
    assert {
        "roc",
        "reliability",
        "f1_by_class",
        "loss",
        f"{first}-roc",
        f"{first}-gradcam",
    } <= names
    assert "stale" not in names
