module github.com/luxfi/netrunner

go 1.24

require github.com/luxfi/api v0.0.0

replace github.com/luxfi/api => ../api
