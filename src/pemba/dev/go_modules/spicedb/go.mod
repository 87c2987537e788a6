// Pins what `pemba dev` builds where no spicedb is installed: go build -mod=mod github.com/authzed/spicedb/cmd/spicedb
module pemba.dev/spicedb

go 1.26.5

require github.com/authzed/spicedb v1.56.0
