// Pins what `pemba bench` builds where no ghz is installed: go build -mod=mod github.com/bojand/ghz/cmd/ghz
module pemba.dev/ghz

go 1.23.0

require github.com/bojand/ghz v0.121.0
