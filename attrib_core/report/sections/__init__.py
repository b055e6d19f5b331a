"""Tables, gallery and other sections of the page, one file each."""
