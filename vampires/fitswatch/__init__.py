"""fitswatcher: the newest FITS files of folders on a screen, and what is wrong with them."""
