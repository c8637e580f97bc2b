module bequest/peers

go 1.24
