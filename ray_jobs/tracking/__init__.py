"""The only room that imports MLflow: one run per training, its spool and replay, and the model registry.

In: parameters, metrics, files, the data set and a model to register, from the driver alone.
Out: one MLflow run, once each, whether the server was up, down, hung or slow meanwhile.

Everything is written to ``<run_dir>/tracking/spool.jsonl`` first and sent from there: ``tracker`` (what the driver
holds), ``child_tracker`` (a run inside it), ``spool`` (the file), ``delivery`` (spool to server), ``registry`` and
``model_package`` (the registered model), ``pyfunc_model`` (what runs inside that model), ``system`` and ``environment``
(the machine).
"""
