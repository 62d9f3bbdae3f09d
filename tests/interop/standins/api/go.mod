module github.com/luxfi/api

go 1.24
