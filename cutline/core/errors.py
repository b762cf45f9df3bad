"""Every error that Cutline raises on purpose.

CutlineError            a problem and its remedy, one line each; the command line exits with code 2
├── RecipeError         the recipe or the command line is wrong
├── DataError           the images or captions can't be used as they are
├── CheckpointError     a model can't be opened, built or saved
├── ScoreError          predictions can't be scored against the references
└── TrainingError       training can't start or had to stop

ScoreWarning            a Python warning: a score needs care, or was left out
"""


class CutlineError(Exception):
    """Something that the user can fix.

    Args:
        problem: what is wrong, in one line, naming the file, key or id concerned.
        remedy: what to do about it, in one line.
    """

    def __init__(self, problem: str, remedy: str):
        super().__init__(f"{problem} {remedy}")
        self.problem = problem
        self.remedy = remedy


class RecipeError(CutlineError):
    pass


class DataError(CutlineError):
    pass


class CheckpointError(CutlineError):
    pass


class ScoreError(CutlineError):
    pass


class TrainingError(CutlineError):
    pass


class ScoreWarning(UserWarning):
    """A caveat about a score; also shown by the command line, in reports and in ``scores.json``."""
