module peer

go 1.24

require github.com/luxfi/netrunner v1.18.4
