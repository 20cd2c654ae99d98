"""Whether what this process has loaded is what a stage's specification was hashed from."""

from benchmark.base.digest import code, science
from benchmark.base.errors import ChangedError
from benchmark.data.corpora import Corpus
from benchmark.model.transformer import Transformer
from benchmark.plan.spec import StageSpec, method_code
from benchmark.training.baseline import Baseline
from benchmark.training.optim import OptimizerConfig, optimizer_code


def check_loaded(
    spec: StageSpec, corpus: Corpus, baseline: Baseline, model_class: type[Transformer]
) -> None:
    """Compare text and code with the specification.

    Raises:
        ChangedError: something has changed since the run was planned.
    """
    grown = spec.n_grown > 0
    found = {
        f"the text of corpus {corpus.name}": (spec.data.get("sha256"), corpus.sha256),
        "growbench's own code": (spec.code, science()),
        f"the code of {spec.baseline if grown else spec.model_class}, or of what it imports,": (
            spec.method_code,
            method_code(baseline) if grown else code(model_class),
        ),
        f"the code of {spec.optimizer['target'] or 'AdamW'}": (
            spec.optimizer_code,
            optimizer_code(OptimizerConfig(**spec.optimizer)),
        ),
    }
    for name, (planned, loaded) in found.items():
        if planned != loaded:
            raise ChangedError(f"{name} has changed since the run was planned; run again")
