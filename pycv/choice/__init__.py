"""Choosing among kernels: what each would take (model), what each took (cache, autotune), on which machine (device).

The registry asks, on a problem it has not met: is this problem tuned (cache)? If not and ``autotune`` is set: what do
all of them take (autotune)? Else: what does the cost model predict (model)? Nothing of this lies on the way of a call
whose plan is known.
"""
