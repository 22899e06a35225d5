"""Molecules: read from SMILES, CSV and SDF, as graphs or as strings; written as SMILES and SDF; drawn."""
