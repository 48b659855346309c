"""What every store promises, one test for each promise.

Subclass a contract in your own tests and give it the fixtures ``StoreContract`` names; pytest does the rest. The
tests are coroutines: run them with pytest-asyncio in its auto mode.
"""
