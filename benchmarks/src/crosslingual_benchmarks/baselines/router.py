"""A router: several exports of one method, of which a prompt's script chooses one.

The alternative to merged adapters: nothing is lost, but each language's weights stay in memory, and
languages of one script are not told apart.
"""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from crosslingual_benchmarks.methods import find_method


class RoutedPipeline:
    """Pipelines of one base, called as one; whatever else is asked goes to the first."""

    def __init__(self, pipes: Mapping[str, Any], languages: Mapping[str, Sequence[str]]):
        """Pipelines and the languages that they read, by name."""
        self.pipes, self.languages = pipes, languages

    @property
    def components(self) -> dict[str, Any]:
        """Those of all pipelines."""
        parts = enumerate(pipe.components.items() for pipe in self.pipes.values())
        return {f"{number}_{name}": part for number, items in parts for name, part in items}

    def register_modules(self, **modules: Any) -> None:
        """Sets parts of every pipeline."""
        for pipe in self.pipes.values():
            pipe.register_modules(**modules)

    def to(self, *places: Any) -> "RoutedPipeline":
        """Moves every pipeline."""
        for pipe in self.pipes.values():
            pipe.to(*places)
        return self

    def __call__(self, prompt: Sequence[str], **settings: Any) -> Any:
        """Draws each prompt with the pipeline that its script chooses; a list of generators has one
        for each prompt.
        """
        from crosslingual.adapter.merge import choose_by_script
        from crosslingual.frozen.families import call_options
        from crosslingual.frozen.tokens import report_cut

        chosen = [choose_by_script(text, self.languages) for text in prompt]
        images: dict[int, Any] = {}
        for name in dict.fromkeys(chosen):
            places = [place for place, each in enumerate(chosen) if each == name]
            pipe = self.pipes[name]
            own = {**call_options(pipe), **settings}
            if isinstance(settings.get("generator"), list):
                own["generator"] = [settings["generator"][place] for place in places]
            with report_cut(pipe):
                drawn = pipe([prompt[place] for place in places], **own).images
            images |= zip(places, drawn, strict=True)
        return SimpleNamespace(images=[images[place] for place in range(len(chosen))])

    def __getattr__(self, name: str) -> Any:
        """All other attributes are the first pipeline's."""
        return getattr(next(iter(self.__dict__["pipes"].values())), name)


def load_pipeline(path: str, base: str | None = None) -> RoutedPipeline:
    """Loads `METHOD:FOLDER,FOLDER`, exports whose configs name their languages.

    Raises:
        ValueError: no such method, or fewer than two folders.
        FileNotFoundError: a folder holds no export.
    """
    from crosslingual.adapter.artifact import load_artifact_config

    name, _, rest = path.partition(":")
    folders = list(dict.fromkeys(rest.split(",")))
    if len(folders) < 2:
        raise ValueError(f"{path!r} names no exports to choose from: give METHOD:FOLDER,FOLDER")
    method = find_method(name)
    languages = {folder: load_artifact_config(folder)["languages"] for folder in folders}
    pipes = {folder: method.load_pipeline(folder, base) for folder in folders}
    return RoutedPipeline(pipes, languages)
