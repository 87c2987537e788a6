"""What `pemba bench` measures: Pemba and SpiceDB asked directly, in turns, within one run.

::

    stage      a whole Pemba in a temporary folder, as `pemba dev` starts it, and ghz
    dataset    tenants, trees and roles (pure), and what they decide; `loading` puts it there through the API
    questions  which are asked, in what order (pure)
    ghz        sends prepared requests, counts statuses and latencies
    works      one function a row of the table;  `figures` and `report` make the table of them

Figures drift on shared machines: what is compared is measured in turns (A B B A), and what counts is the ratio.  Each
work's answers are compared on both sides with what the records say, before and after its load; a status that is not OK
or another answer spoils the row.
"""
