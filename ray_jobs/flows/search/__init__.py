"""One search from its checks to its best configuration, and the processes that its trials run in."""
