"""Measure what a process needs to be tiled, and compare it with its contract.

`data` makes images, `reach` compares outputs, `measuring` and `folding` decide which calls to make,
`verdict` compares the result with the contract, `memory` measures bytes. Only `subject` and
`memory` call a process.
"""
