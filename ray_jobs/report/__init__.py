"""Pages for people: one HTML file that needs nothing else, neither network nor script.

In: plain values. Out: markup in which every text from outside is escaped. What a page says is decided in ``flows``.
"""
