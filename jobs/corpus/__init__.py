"""Input pictures: the rendered StyleGrid corpus and packed image folders."""
