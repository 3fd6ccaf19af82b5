"""The stages of the product: each is a keyword call, a command, or both, under the same names.

`calls` has the functions, and `calls.pyi` their types, which `make docs` writes anew.
"""

from __future__ import annotations

from collections.abc import Mapping

from monox_kit.advice.advise import AdviseConfig
from monox_kit.benchmarking.config import BenchmarkConfig
from monox_kit.benchmarking.load.config import LoadConfig
from monox_kit.demo.config import DemoConfig
from monox_kit.doctor import DoctorConfig
from monox_kit.evaluation.calibration import CalibrateConfig
from monox_kit.evaluation.comparison import CompareConfig
from monox_kit.evaluation.run import EvaluateConfig
from monox_kit.exporting.config import ExportConfig
from monox_kit.importing.config import ImportConfig
from monox_kit.labelling.config import LabelConfig
from monox_kit.paper import reproduce as paper
from monox_kit.paper.config import ReproduceConfig
from monox_kit.prediction.config import PredictConfig
from monox_kit.progress import Progress
from monox_kit.recipes import run as recipes
from monox_kit.recipes.recipe import RunConfig
from monox_kit.serving.config import ServeConfig
from monox_kit.stage_call import Stage
from monox_kit.store.config import (
    FetchConfig,
    InfoConfig,
    MergeConfig,
    SelectConfig,
    StatsConfig,
    StoreExportConfig,
    VerifyConfig,
)
from monox_kit.tasks.cls.prepare import ClsConfig
from monox_kit.tasks.debian.prepare import DebianConfig
from monox_kit.tasks.manpages.prepare import ManpagesConfig
from monox_kit.tasks.xnli.prepare import XnliConfig
from monox_kit.training.config import StudentConfig, TeacherConfig
from monox_kit.trimming.config import TrimConfig

# The stages by the name of their call.
STAGES: Mapping[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="demo",
            summary="Run the whole pipeline on real text.",
            config=DemoConfig,
            function="monox_kit.demo.recipe:run_demo",
            output="out",
            output_help="Folder to write the run to.",
        ),
        Stage(
            name="data_debian",
            summary="Prepare Debian's package descriptions as a corpus.",
            config=DebianConfig,
            function="monox_kit.tasks.debian.prepare:prepare_debian",
            output="out",
            output_help="Folder to write the corpus to.",
        ),
        Stage(
            name="data_manpages",
            summary="Prepare Debian's manual pages, which are long, as a corpus.",
            config=ManpagesConfig,
            function="monox_kit.tasks.manpages.prepare:prepare_manpages",
            output="out",
            output_help="Folder to write the corpus to.",
        ),
        Stage(
            name="data_xnli",
            summary="Prepare XNLI and MultiNLI as a corpus of sentence pairs.",
            config=XnliConfig,
            function="monox_kit.tasks.xnli.prepare:prepare_xnli",
            output="out",
            output_help="Folder to write the corpus to.",
        ),
        Stage(
            name="data_cls",
            summary="Prepare reviews of the CLS data as a corpus.",
            config=ClsConfig,
            function="monox_kit.tasks.cls.prepare:prepare_cls",
            output="out",
            output_help="Folder to write the corpus to.",
        ),
        Stage(
            name="train_teacher",
            summary="Fine-tune an English encoder on gold labels with cross-entropy.",
            config=TeacherConfig,
            function="monox_kit.training.run:train_teacher",
            output="out",
            output_help="Folder to write the model to.",
        ),
        Stage(
            name="train_student",
            summary="Train a multilingual student from stores and gold labels.",
            config=StudentConfig,
            function="monox_kit.training.run:train_student",
            output="out",
            output_help="Folder to write the model to.",
            # A student keeps the languages that the labels do not show.
            defaults={"embeddings": "frozen"},
        ),
        Stage(
            name="export",
            summary="Write the ONNX bundle of a fine-tuned model, once it agrees with PyTorch.",
            config=ExportConfig,
            function="monox_kit.exporting.run:export_model",
            output="out",
            output_help="Bundle folder to write.",
            positional=("model",),
        ),
        Stage(
            name="trim",
            summary="Write a model without the tokens that some texts do not use.",
            config=TrimConfig,
            function="monox_kit.trimming.run:trim",
            output="out",
            output_help="Model folder to write.",
            positional=("model",),
        ),
        Stage(
            name="label",
            summary="Write a teacher's logits for every row of a corpus to a store.",
            config=LabelConfig,
            function="monox_kit.labelling:label_corpus",
            output="store",
            output_help="Logit store to write or to finish: a folder or a URL.",
            output_may_be_url=True,
        ),
        Stage(
            name="predict",
            summary="Write labels with probabilities for every row of some files to one file.",
            config=PredictConfig,
            function="monox_kit.prediction.run:predict",
            output="out",
            output_help="File to write; - writes to the standard output.",
            positional=("model",),
        ),
        Stage(
            name="serve",
            summary="Answer over HTTP what bundles say of texts.",
            config=ServeConfig,
            function="monox_kit.serving.run:serve",
            positional=("bundles",),
        ),
        Stage(
            name="evaluate",
            summary="Measure a model in every language of some labelled files.",
            config=EvaluateConfig,
            function="monox_kit.evaluation.run:evaluate",
            positional=("model",),
        ),
        Stage(
            name="calibrate",
            summary="Write a model that says how sure it is, by language.",
            config=CalibrateConfig,
            function="monox_kit.evaluation.calibrate:calibrate",
            output="out",
            output_help="Model folder to write.",
            positional=("model",),
        ),
        Stage(
            name="compare",
            summary="Say by language whether one model is better than another on the same rows.",
            config=CompareConfig,
            function="monox_kit.evaluation.comparison:compare",
            positional=("first", "second"),
        ),
        Stage(
            name="benchmark",
            summary="Measure latency, speed, size, memory and agreement of models side by side.",
            config=BenchmarkConfig,
            function="monox_kit.benchmarking.run:benchmark",
            positional=("models",),
        ),
        Stage(
            name="benchmark_server",
            summary="Measure what a server answers, how fast and up to which rate.",
            config=LoadConfig,
            function="monox_kit.benchmarking.load.run:load",
            positional=("url",),
        ),
        Stage(
            name="store_info",
            summary="Tell what is in a store, finished or not.",
            config=InfoConfig,
            function="monox_kit.store:store_info",
            positional=("folder",),
            by_name=True,
        ),
        Stage(
            name="verify_store",
            summary="Read every byte of a store, finished or not, and check its digests.",
            config=VerifyConfig,
            function="monox_kit.store:verify_location",
            positional=("folder",),
            by_name=True,
        ),
        Stage(
            name="store_stats",
            summary="Count what a store's rows say, finished or not.",
            config=StatsConfig,
            function="monox_kit.store:store_stats",
            positional=("folder",),
            by_name=True,
        ),
        Stage(
            name="merge_stores",
            summary="Put stores together into one new store.",
            config=MergeConfig,
            function="monox_kit.store:merge_stores",
            output="out",
            output_help="Folder of the store to write or to finish.",
            positional=("parts",),
            by_name=True,
        ),
        Stage(
            name="fetch_store",
            summary="Copy a finished store from a URL into a folder.",
            config=FetchConfig,
            function="monox_kit.store:fetch_store",
            output="out",
            output_help="Folder to write or to finish.",
            positional=("url",),
            by_name=True,
        ),
        Stage(
            name="import_store",
            summary="Write what a file says of every row of a corpus to a store.",
            config=ImportConfig,
            function="monox_kit.importing.run:import_store",
            output="out",
            output_help="Logit store to write or to finish: a folder or a URL.",
            output_may_be_url=True,
            positional=("rows",),
        ),
        Stage(
            name="select_store",
            summary="Choose rows of a store, with a share for each language and class.",
            config=SelectConfig,
            function="monox_kit.store:select_store",
            output="out",
            output_help="Store to write or to finish, or file to write.",
            positional=("folder",),
        ),
        Stage(
            name="export_store",
            summary="Write a finished store's rows for other programs.",
            config=StoreExportConfig,
            function="monox_kit.store:export_store",
            output="out",
            output_help="File to write.",
            positional=("folder",),
            by_name=True,
        ),
        Stage(
            name="run",
            summary="Run a recipe: a pipeline of these stages, or what of it is not finished.",
            config=RunConfig,
            function="monox_kit.door:run_recipe",
            positional=("recipe",),
        ),
        Stage(
            name="reproduce",
            summary="Make a table or figure of the paper from a recipe's run.",
            config=ReproduceConfig,
            function="monox_kit.door:reproduce_item",
            positional=("item",),
        ),
        Stage(
            name="advise",
            summary="Tell how far a teacher leads before it labels, and what such leads gained.",
            config=AdviseConfig,
            function="monox_kit.advice.advise:advise",
            positional=("teacher",),
        ),
        Stage(
            name="doctor",
            summary="Tell what is installed, what is missing and how to install it.",
            config=DoctorConfig,
            function="monox_kit.doctor:diagnose",
            positional=("bundle",),
            by_name=True,
        ),
    )
}


def run_recipe(config: RunConfig, *, progress: Progress | None = None) -> recipes.RunReport:
    """Run a recipe of these stages.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    return recipes.run_recipe(config, STAGES, progress)


def reproduce_item(
    config: ReproduceConfig, *, progress: Progress | None = None
) -> paper.Reproduction:
    """Make a table or figure of the paper from a recipe of these stages.

    Raises:
        MonoxError: by kind, see `monox_kit.errors`.
    """
    return paper.reproduce_item(config, STAGES, progress)
