"""The compact text form of audience definitions: written by people, read and printed here."""
