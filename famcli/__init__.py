"""famcli: does this model remember what it read long ago, and what did that cost?"""

__version__ = "0.1.0"
