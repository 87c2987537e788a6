"""`pemba import`: data of other systems, read from files, into one tenant.

Everything is kept in one SQLite file, so that memory is bounded whatever the size of the data.  Of a dry run it is a
temporary one; of an import it is the journal, beside the first file, without which nothing is undone.

    read      each line by itself: shape, and nothing of what is there (`lines`)
    compare   the lines with each other (`preflight`), and with the tenant as it is (`tenant`): make, change, or leave
    apply     ordinary calls, one after the other (`applying`); each is noted as done after it was answered
    verify    the tenant is read again and compared, and some checks are asked with the last token (`verifying`)
    undo      what was made goes, children first, unless later changes build on it (`obstacles`, `undoing`)

The journal is ahead of nothing: a crash between a call and its note leaves a call of which nobody here knows whether it
was carried out.  It is sent again, as it was, under the request id that its line has in this import, and Pemba answers
with what it answered then.  That holds for the 24 hours in which Pemba remembers request ids.
"""
