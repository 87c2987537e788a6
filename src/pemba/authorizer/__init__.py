"""Questions: may this subject do this on that object?

::

    question, consistency
        |
        v
    positions, statuses     feed: what PostgreSQL says is delivered, known without asking it for each question
        |                   waiting: where a token names more than is known, until it is, or not answered
        v
    a suspended tenant or user: DENIED, whatever SpiceDB still holds
        |
        v
    decisions               what was answered at this very position
        |  not known
        v
    SpiceDB                 at least as fresh as that position; past an expiry fully consistent, and not kept
        |
        v
    answer, token of the position

Without a token a question is asked at least as fresh as the tenant's last delivered state, as of the last 50 ms.  With
one it waits until every position of the token is in force, and is never answered from older data.  Every failure
raises: none reads as "allowed".

Outages.  With PostgreSQL away, whatever needs nothing new of it goes on at the last known positions, for as long as
`outage_seconds` says; then every check is UNAVAILABLE, known or not.  With SpiceDB away, what is known is answered and
the rest is UNAVAILABLE.
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
