"""sltrace: why did this request wait?"""

__version__ = "0.1.0"
