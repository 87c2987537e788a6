"""SpiceDB: the only importer of authzed, and the only reader of SpiceDB's statuses.

Questions and writes in Pemba's own types (`client`), its errors (`errors`), and the life of its schema (`schema`,
`schema_apply`, `schema_gate`).
"""
