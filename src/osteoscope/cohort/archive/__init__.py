"""An archive of DICOM files, any nesting and zips: its index, its patients, their labels, and the series to use."""
