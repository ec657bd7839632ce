"""Reference data: sampling, Kohn-Sham labels, harmonic references, free atoms and density fits; the only importer of PySCF
and tblite. Run as `python -m densnet.reference molecule=water`."""
