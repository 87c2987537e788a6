"""Questions: may this subject do this on that object?

::

    question, consistency -> positions from PostgreSQL -> (wait for the token) -> SpiceDB -> answer, token

Without a token a question is asked at least as fresh as the tenant's last delivered state.  With one it waits until
every position of the token is delivered, and is never answered from older data.  A suspended tenant or user is
denied from the records, at once, whatever SpiceDB still holds; a lookup lists nothing of them.  Every failure raises:
none reads as "allowed".
"""

from pemba.authorizer.authorizer import Authorizer
from pemba.authorizer.lookups import Found, Lookup, Part, ResourcesWanted, SubjectsWanted
from pemba.authorizer.questions import AllAnswer, Answer, BatchAnswer, Consistency, Question
from pemba.spicedb.client import Decision

__all__ = [
    "AllAnswer",
    "Answer",
    "Authorizer",
    "BatchAnswer",
    "Consistency",
    "Decision",
    "Found",
    "Lookup",
    "Part",
    "Question",
    "ResourcesWanted",
    "SubjectsWanted",
]
