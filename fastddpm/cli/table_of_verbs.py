"""The table of verbs; what a row names is imported when the verb runs."""

from typing import NamedTuple


class Verb(NamedTuple):
    """A row of the table, without the verb."""

    summary: str
    request: str
    """"module:class" in fastddpm: its fields are the options, its docstring the help"""
    function: str
    """"module:function" in fastddpm, which takes a request"""
    positionals: tuple[str, ...]
    """fields that are given without a name; the last one may take several words"""
    config: str | None
    """packaged config that is read without `--config`, whose name the first word completes where it has {}; None: none
    is read; empty: the verb reads no files"""


_TABLE = """
train     | train a model on images                   | config.settings:RunConfig              | training:train                     |                | quickstart
ingest    | read images in and say what they are      | verbs.ingest:IngestRequest             | verbs.ingest:ingest                | data.source    | none
sample    | draw new images                           | verbs.sample.request:SampleRequest     | verbs.sample.samples:sample        | model          |
vary      | draw variations of images                 | verbs.sample.request:VariationRequest  | verbs.sample.variations:vary       | model images   |
cutmix    | blend pairs of images                     | verbs.sample.request:BlendRequest      | verbs.sample.blends:cutmix         | model images   |
augment   | enlarge a labelled set                    | verbs.augment.request:AugmentRequest   | verbs.augment.augment:augment      | model data     |
detect    | find anomalies in images                  | verbs.detect.request:DetectRequest     | verbs.detect.detect:detect         | model images   |
export    | write a model for a runtime without torch | verbs.export.request:ExportRequest    | verbs.export.export:export         | model          |
judge     | train a network whose features score      | verbs.evaluate.request:JudgeRequest    | verbs.evaluate.train_judge:make_judge | source      |
evaluate  | score images against real ones            | verbs.evaluate.request:EvaluationRequest | verbs.evaluate.evaluate:evaluate | samples reals  |
evaluate augmentation | measure what augmentation gains | studies.augmentation.settings:GainConfig | studies.augmentation.gain:evaluate_augmentation | | gain-mnist
reproduce | measure the paper's claims                | studies.paper.settings:ReproductionConfig | studies.paper.reproduce:reproduce |              | reproduce-{}
dcgan     | train the baseline that the paper compares with | studies.dcgan.settings:DCGANConfig | studies.dcgan.training:train_dcgan |              | dcgan-mnist
demo      | serve a page for a model in the browser   | verbs.demo.request:DemoRequest         | verbs.demo.serve_page:demo         | model          |
ledger    | write which images each step of a run saw | verbs.ledger:LedgerRequest             | verbs.ledger:ledger                | run            |
verify    | check every file of a run, model or cache | verbs.verify:VerifyRequest             | verbs.verify:verify                | folder         |
push      | publish a run, or images, on the Hub      | verbs.push:PushRequest                 | verbs.push:push                    | folder repo_id |
"""  # noqa: E501 - a table: a row a line

VERBS: dict[str, Verb] = {}
for _line in _TABLE.strip().splitlines():
    _verb, _summary, _request, _function, _names, _config = (part.strip() for part in _line.split("|"))
    VERBS[_verb] = Verb(_summary, _request, _function, tuple(_names.split()), None if _config == "none" else _config)
