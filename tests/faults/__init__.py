"""The fault suite (`make faults`): a whole system, a fault, and a history that is checked.

It mirrors no folder of the project: each test is a row of the table of faults, says so in its name
(`test_row_07_…`) and is marked `faults`. See `row.py` for what a row is given.
"""
