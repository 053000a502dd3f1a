"""A load that fails in the middle: the model gets its former weights again. For the plugs of engines whose workers can
read those once more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional, Tuple

from refit.errors import FailedPrecondition
from refit.integrations.shared.failures import told


@dataclass(frozen=True)
class Former:
    """The weights that were in use before.

    Attributes:
        name: such as "version 41".
        load: loads them again, all of them.
    """

    name: str
    load: Callable[[], None]


@dataclass(frozen=True)
class GoingBack:
    """How an engine gets over a load that fails in the middle.

    Attributes:
        restored: how the error ends if the former weights are in use again; {} stands for their name.
        torn: how it ends if they could not be loaded, and the model holds parts of two versions.
        tear: hears of that, in the words of the error, before it is raised.
    """

    restored: str
    torn: str
    tear: Callable[[str], None]

    def load(self, number: int, load: Callable[[], None], former: Optional[Former]) -> None:
        """Loads version `number`, or else the former weights.

        Args:
            load: changes the model.
            former: None: there are none that could be loaded again.
        Raises:
            FailedPrecondition: it was not loaded; `torn` says whether the model holds parts of two versions.
            BaseException: the process is to end in the middle of a load: nothing (more) is loaded.
        """
        try:
            self._load_or_go_back(number, load, former)
        except FailedPrecondition as error:
            if error.torn:
                self.tear(error.message)
            raise
        except BaseException as error:
            self.tear(f"version {number}: its load was ended: {told(error)}; {self.torn}")
            raise

    def _load_or_go_back(self, number: int, load: Callable[[], None], former: Optional[Former]) -> None:
        try:
            load()
        except Exception as error:
            is_torn, end = self._go_back(former)
            words = f"version {number}: its load failed in the middle: {told(error)}; {end}"
            failed = FailedPrecondition(words, tensor=getattr(error, "tensor", None), version=number)
            failed.torn = is_torn
            raise failed from error

    def _go_back(self, former: Optional[Former]) -> Tuple[bool, str]:
        """(the model is torn, how the error ends)."""
        if former is None:
            return True, self.torn
        try:
            former.load()
        except Exception as error:
            return True, f"{former.name} could not be loaded again: {told(error)}; {self.torn}"
        return False, self.restored.format(former.name)
