"""Hyperparameter search on Ray Tune.

    search.py       what Tune is given, and what a resumed search gives it again
    trainable.py    one trial in one process, in actors that are used again
    parallel.py     one trial in several processes, by Ray Train
    schedulers.py   early stopping; populations that exploit and explore
    events.py       what Tune does, into the search's own record

Tune decides where and when a trial runs and when it stops. All that must outlive a kill stands in
the record of `training/search/record.py`: nothing that Tune has pickled is ever read again.
"""
