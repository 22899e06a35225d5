"""The command line. parser.py declares every verb and option; verbs.py runs them; main.py turns errors into words.

Nothing here imports torch before a verb needs it, so ``--help`` answers at once.
"""
