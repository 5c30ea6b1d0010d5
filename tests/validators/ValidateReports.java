import com.pixelmed.validate.DicomSRValidator;

/** Validates reports with PixelMed: its own program takes one file, and most of its time to read its style sheets. */
public class ValidateReports {
    public static void main(String[] files) throws Exception {
        DicomSRValidator validator = new DicomSRValidator();
        for (String file : files) {
            System.out.println("File " + file);
            System.out.println(validator.validate(file));
        }
    }
}
