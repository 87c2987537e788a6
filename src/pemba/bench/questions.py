"""Which questions are asked, and in what order: pure."""

from __future__ import annotations

from random import Random

from pemba.bench.dataset import PERMISSIONS, DataSet, Question
from pemba.model import Permission

ZIPF_EXPONENT = 1.05
ZIPF_QUESTIONS = 5000


class Questions:
    """Hands out different questions: what was taken is not handed out again, so both sides get cold ones."""

    def __init__(self, dataset: DataSet, seed: int) -> None:
        self._dataset = dataset
        self._random = Random(seed)  # noqa: S311  no secret: the same questions for the same seed
        self._numbers = self._random.sample(range(dataset.size), dataset.size)
        self._pages = self._random.sample(range(self._page_count), self._page_count)

    @property
    def _page_count(self) -> int:
        return sum(len(tenant.users) for tenant in self._dataset.tenants) * len(PERMISSIONS)

    @property
    def share(self) -> int:
        """What one load may take, so that there is enough for all."""
        return max(1, self._dataset.size // 50)

    @property
    def page_share(self) -> int:
        """As `share`, of pages."""
        return max(1, self._page_count // 25)

    def take(self, count: int) -> list[Question]:
        """That many, uniform over the data set.  Raises ValueError where fewer are left."""
        if count > len(self._numbers):
            raise ValueError(f"the data set has only {len(self._numbers)} questions left; give it more tenants")
        taken, self._numbers = self._numbers[:count], self._numbers[count:]
        return [self._dataset.question(number) for number in taken]

    def zipf(self, count: int) -> list[Question]:
        """`count` draws of 5,000 different ones, the k-th as often as k ** -1.05."""
        population = self.take(min(ZIPF_QUESTIONS, self.share))
        weights = [rank**-ZIPF_EXPONENT for rank in range(1, len(population) + 1)]
        return self._random.choices(population, weights, k=count)

    def pages(self, count: int) -> list[list[Question]]:
        """Page loads, each one user's one permission on every workspace of the tenant below its root."""
        taken, self._pages = self._pages[:count], self._pages[count:]
        return [self._page(number) for number in taken]

    def _page(self, number: int) -> list[Question]:
        number, permission = divmod(number, len(PERMISSIONS))
        place, user = divmod(number, len(self._dataset.tenants[0].users))
        tenant = self._dataset.tenants[place]
        ask = Permission(PERMISSIONS[permission])
        return [Question(place, workspace, ask, tenant.users[user]) for workspace in range(1, tenant.workspaces)]
