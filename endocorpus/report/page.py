from pathlib import Path
from endocorpus.corpus.manifest import Corpus
def write_report(corpus: Corpus, path: Path) -> None:
    path.write_text("x")
